"""What a model's predictions rest on, word by word."""
