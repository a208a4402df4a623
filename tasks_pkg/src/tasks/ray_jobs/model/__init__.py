"""What training, search, prediction and registry share: features, metrics, files, signature."""
