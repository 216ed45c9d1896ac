"""The exported student as an MLflow model; MLflow runs this file, without this project.

Takes a table with the column ``text``, returns ``label`` and ``probability``.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class Classifier(PythonModel):
    """Answers with the folder that is this model's only artifact."""

    def load_context(self, context: Any) -> None:
        """Load ``predict.py`` of the exported folder and the student with it."""
        folder = Path(context.artifacts["student"])
        spec = importlib.util.spec_from_file_location("exported_student", folder / "predict.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.student = module.Student(folder)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Classify the column ``text``."""
        texts = [str(text) for text in model_input["text"]]
        rows = self.student.encode(texts)
        return pd.DataFrame(
            self.student.answer(self.student.logits(rows)) if rows else [],
            columns=["label", "probability"],
        )


set_model(Classifier())
