"""The 19 limbs, in the two orders that the field's files have. Joints are numbered as in mscgan.pose.JOINTS.

The channels of the network follow the first: limb i has x of its field in channel 2i and y in 2i + 1. The assembly of
people goes by the second. Ears and shoulders come last there: the files let no person begin with them, and one who did
would get no third joint and so be dropped.
"""

LIMBS = (  # of the channels (CMU's caffe_train, cpm_data_transformer.cpp)
    (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 2), (2, 3), (3, 4), (2, 16), (1, 5), (5, 6), (6, 7), (5, 17),
    (1, 0), (0, 14), (0, 15), (14, 16), (15, 17),
)  # fmt: skip

ASSEMBLY = (  # of assembling (connect56LineVec.m; compute_coordinates.py), and where each limb's field lies
    #  from  to   channels
    (   1,   2,   (12, 13)),
    (   1,   5,   (20, 21)),
    (   2,   3,   (14, 15)),
    (   3,   4,   (16, 17)),
    (   5,   6,   (22, 23)),
    (   6,   7,   (24, 25)),
    (   1,   8,   (0, 1)),
    (   8,   9,   (2, 3)),
    (   9,  10,   (4, 5)),
    (   1,  11,   (6, 7)),
    (  11,  12,   (8, 9)),
    (  12,  13,   (10, 11)),
    (   1,   0,   (28, 29)),
    (   0,  14,   (30, 31)),
    (  14,  16,   (34, 35)),
    (   0,  15,   (32, 33)),
    (  15,  17,   (36, 37)),
    (   2,  16,   (18, 19)),
    (   5,  17,   (26, 27)),
)  # fmt: skip
