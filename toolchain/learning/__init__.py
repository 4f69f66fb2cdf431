"""Training side: activations, models, data, training, evaluation, detection."""
