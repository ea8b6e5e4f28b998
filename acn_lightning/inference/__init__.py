"""Uses of a trained model: codes, neighbours, samples, exports."""
