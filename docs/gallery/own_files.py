"""Your own data files: tables, arrays and images.

A CSV file with text and missing values becomes features that the model file remembers; an NPZ file of
images needs no more than a name. Both also work from the command line: `xpnet train flats.csv --target
rent`, `xpnet train shapes.npz`.
"""

import csv

import numpy as np

import xpnet
from xpnet.data import load_file
from xpnet.tabular import TabularPreprocessing, columns_text

rng = np.random.default_rng(0)

# --- a table ------------------------------------------------------------------------------------
with open("flats.csv", "w", newline="", encoding="utf-8") as file:
    out = csv.writer(file)
    out.writerow(["area", "district", "rent"])
    for area, district in zip(rng.uniform(20, 120, size=300), rng.integers(3, size=300), strict=True):
        rent = 8 * area + 300 * district + rng.normal(0, 20)
        out.writerow(
            ["" if rng.uniform() < 0.1 else round(area), ["north", "old town", "lake"][district], rent]
        )

prepare = TabularPreprocessing("rent").fit("flats.csv")
prepare.fit_target("flats.csv")
print(columns_text(prepare))
X, y = prepare.transform("flats.csv"), prepare.encode_target("flats.csv", scaled=False)
model = xpnet.MLPRegressor(max_iter=40, random_state=0).fit(X, y.ravel())
flat = prepare.transform({"district": ["lake", "north"], "area": [80, None]})
print("rents:", model.predict(flat).round(-1).tolist())

# --- images -------------------------------------------------------------------------------------
label = rng.integers(2, size=200)
images = rng.integers(0, 60, size=(200, 6, 6), dtype=np.uint8)
images[label == 1, 2:4, :] += 120  # a bar across the middle
np.savez("shapes.npz", x=images, y=np.where(label == 1, "bar", "empty"))

shapes = load_file("shapes.npz")
print(shapes)
net = xpnet.MLP([shapes.n_features, 16, shapes.n_classes], seed=0)
net.preprocessing, net.classes = shapes.preprocessing, shapes.classes
xpnet.fit(net, (shapes.x_train, shapes.y_train), epochs=10, batch_size=20)
print("the first five:", [shapes.classes[k] for k in net.predict(images[:5])])
