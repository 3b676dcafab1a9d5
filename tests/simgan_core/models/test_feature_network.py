import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from simgan_core.models.estimator import build_estimator, save_estimator
from simgan_core.models.feature_network import load_feature_network

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 6, 3)).eval()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, network: nn.Module) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    free = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(
        torch.export.export(network, (torch.zeros(2, 1, 16, 20),), dynamic_shapes=free), path
    )
    return path


def test_an_exported_program_computes_as_its_network_and_passes_gradients(
    program: Path, network: nn.Module
) -> None:
    loaded = load_feature_network(program, CPU)
    images = torch.rand(5, 1, 16, 20, requires_grad=True)
    torch.testing.assert_close(loaded(images), network(images))
    loaded(images).sum().backward()
    assert images.grad is not None
    assert not any(weight.requires_grad for weight in loaded.parameters())


def test_an_estimators_convolutions_serve_as_features(tmp_path: Path) -> None:
    estimator = build_estimator(EstimatorConfig(), 35, 55, 1)
    save_estimator(tmp_path / "estimator.pt", estimator)
    images = torch.rand(2, 1, 35, 55)
    loaded = load_feature_network(tmp_path / "estimator.pt", CPU)
    torch.testing.assert_close(loaded(images), estimator.eval().features(images))


class Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def rewritten(program: Path, to: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """Copy an archive with one of its files changed."""
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(to, "w") as target:
        for info in source.infolist():
            content = source.read(info)
            target.writestr(info, change(content) if info.filename.endswith(name) else content)
    return to


def test_a_program_with_pickled_code_is_refused_and_runs_nothing(
    program: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    stream = io.BytesIO()
    torch.save(Touch(trace), stream)
    hostile = {
        "sample_inputs/model.pt": lambda _: stream.getvalue(),
        "model_constants_config.json": lambda _: (
            b'{"config": {"c": {"path_name": "opaque_obj_0", "is_param": false,'
            b' "use_pickle": true, "tensor_meta": null}}}'
        ),
        "models/model.json": lambda content: content.replace(
            b'"graph_module"', b'"x": {"expr_str": "__import__(\'os\').abort()"}, "graph_module"', 1
        ),
    }
    assert pickle.dumps(Touch(trace))  # it could be pickled
    for number, (name, change) in enumerate(hostile.items()):
        path = rewritten(program, tmp_path / f"{number}.pt2", name, change)
        with pytest.raises(InputError, match=r"more than tensors|pickled|the size"):
            load_feature_network(path, CPU)
    assert not trace.exists()


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"not an archive")
    with pytest.raises(InputError, match="not a whole exported program"):
        load_feature_network(tmp_path / "net.pt2", CPU)
    with pytest.raises(InputError, match="there is no file"):
        load_feature_network(tmp_path / "absent.pt2", CPU)
