"""The reference simulator: exact integers in PyTorch, batched, slow and simple."""
