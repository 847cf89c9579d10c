"""The models in torch: frozen layers, likelihoods, autoencoders."""
