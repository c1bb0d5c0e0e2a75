"""Methods for image classifiers and regressors."""
