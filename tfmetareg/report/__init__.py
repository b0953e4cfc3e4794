"""Tables, figures and the HTML report, drawn from the files of a work directory. No TensorFlow."""
