"""Tables, figures and the HTML report, made from the files of a work directory, without TensorFlow."""
