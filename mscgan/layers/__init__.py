"""What networks are made of: convolutions and blocks, the U-Net that walks a table, BatchNorm over ranks."""
