"""Vertex numbers of UnityEyes' eye-region mesh: lid margins, caruncle and the loops round them.

The numbers belong to the control mesh of 229 vertices that the assets' shape model describes.
"""

import numpy as np

NUM_VERTICES = 229

MARGIN = np.array([12, 13, 14, 15, 16, 17, 18, 132, 131, 130, 6, 2, 1, 7, 8, 0])
"""Lid margin on the eyeball [16]: inner end, upper lid, outer corner, lower lid."""

CARUNCLE = np.array([28, 27, 25, 32, 31, 30, 33])
"""The caruncle, in the inner corner [7]."""

LOOPS = np.array(
    [
        [33, 32, 25, 13, 14, 15, 16, 17, 18, 132, 131, 130, 6, 2, 1, 7, 8, 0, 28, 30],
        [35, 36, 26, 24, 23, 22, 21, 20, 19, 93, 112, 113, 5, 4, 3, 9, 10, 11, 29, 34],
        [83, 82, 77, 62, 61, 60, 37, 38, 39, 92, 139, 136, 40, 41, 42, 43, 44, 45, 46, 84],
        [86, 85, 78, 72, 71, 70, 47, 48, 49, 135, 141, 140, 53, 54, 55, 56, 57, 58, 59, 87],
        [80, 79, 76, 75, 74, 73, 50, 51, 52, 137, 138, 142, 63, 64, 65, 66, 67, 68, 69, 81],
        [101, 102, 103, 104, 105, 88, 89, 90, 91, 146, 145, 143, 94, 95, 96, 217, 97, 98, 99, 100],
    ]
)
"""Rings round the opening, from the margin outwards [6, 20]: inner corner, upper lid (columns 1 to
9), outer corner (column 10), lower lid."""

LOOP_STRENGTH = np.array([1.0, 1.0, 1.0, 0.8, 0.4, 0.2])
"""Share of a lid's turn that each loop follows [6]."""

OUTER_COLUMN = 10
IS_UPPER = np.arange(20) < OUTER_COLUMN
"""Columns of the loops that move with the upper lid [20]."""

MIDDLENESS = np.concatenate(
    [np.arange(6) / 5, (10 - np.arange(6, 11)) / 4, (np.arange(11, 15) - 10) / 4,
     (20 - np.arange(15, 20)) / 5]
)  # fmt: skip
"""Nearness of a column to the middle of its lid [20]: 0 at the corners, 1 in the middle."""

CANTHUS = (33, 35)
"""The tip of the inner corner lies midway between these two."""

INNER_CORNER, PIVOT, UPPER_MIDDLE, LOWER_MIDDLE = 12, 34, 16, 2
