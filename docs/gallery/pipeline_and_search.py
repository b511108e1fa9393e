"""A scikit-learn pipeline and a grid search.

The estimators are scikit-learn's kind: they clone, nest and search like any other. Scaling happens inside, so
the pipeline has no scaler. Labels may be text.
"""

from sklearn.datasets import load_wine
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline

import xpnet

X, y = load_wine(return_X_y=True)
names = load_wine().target_names[y]  # "class_0", "class_1", "class_2"
X_train, X_test, y_train, y_test = train_test_split(X, names, stratify=names, random_state=0)

pipeline = make_pipeline(SelectKBest(k=8), xpnet.MLPClassifier((32,), max_iter=30, random_state=0))
grid = {
    "selectkbest__k": [4, 13],
    "mlpclassifier__activation": ["relu", "tanh"],
    "mlpclassifier__dropout": [0.0, 0.3],
}
search = GridSearchCV(pipeline, grid, cv=3).fit(X_train, y_train)

for name, value in search.best_params_.items():
    print(f"{name}: {value}")
print(f"cross-validation {search.best_score_:.3f}, test {search.score(X_test, y_test):.3f}")
