"""Fused operations: one file an op, its Triton kernels in the file beside it (`x_triton.py`).

Each op is a public function, a reference in plain PyTorch that defines it, and a `torch.library.custom_op` whose CUDA
implementation is a Triton kernel and whose implementation elsewhere is the reference. The public function runs the
custom op on CUDA and the reference on other devices, where autograd and torch.compile see through it. Triton is
imported when a kernel is launched, so a machine without it can do everything else.
"""
