"""Tasks of question-answer pairs and of passages."""
