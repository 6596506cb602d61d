"""One run of training: the network fitted, its epochs logged, stopped and resumed."""
