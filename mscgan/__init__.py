"""MsCGAN: distributed training of multi-scale conditional GANs for person image generation (Tang et al.)."""
