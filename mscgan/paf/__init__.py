"""The estimator of poses by part affinity fields (Cao et al., CVPR 2017): the paper's section 3.1.1, reference [14]."""
