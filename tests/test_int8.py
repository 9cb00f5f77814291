"""The 8-bit form of the network stays close to the plain one, and nothing decides how close."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref

import numpy as np
import pytest
import tifffile
import torch
from plain_engine import ArraySource, identity_network, strong_network

import nrrn_fiji.plan as plans
from nrrn_fiji.denoising import denoise_slabs, make_plan
from nrrn_fiji.device import missing_for_int8
from nrrn_fiji.fused import FusedNRRN
from nrrn_fiji.int8.activations import observe
from nrrn_fiji.models import load_model
from nrrn_fiji.noise import add_noise
from nrrn_fiji.resources import data_folder
from nrrn_fiji.settings import DenoiseSettings

CPU = torch.device("cpu")
missing = missing_for_int8(CPU)
if missing is not None:
    pytest.skip(f"int8 needs {missing}", allow_module_level=True)

from nrrn_fiji.int8 import engine as quantised  # noqa: E402
from nrrn_fiji.int8 import gates, kernels, strips  # noqa: E402
from nrrn_fiji.int8.engine import QuantisedNRRN, error_on_made_images  # noqa: E402
from nrrn_fiji.int8.room import Room  # noqa: E402


def three(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((3, *shape), generator=generator)


def both_forms(network, before, here, **options):
    """Return the change of one branch in int8 and in fp32, and the grey levels between them."""
    results = []
    for engine in (
        QuantisedNRRN(network, **options),
        FusedNRRN(network, device=CPU, **options),
    ):
        results.append(engine.branches(before, [engine.centre(here)])[0])
    return *results, 255 * (results[0] - results[1])


@pytest.mark.parametrize("name", ["fibsem-medulla", "fibsem-medulla-fast"])
@pytest.mark.parametrize("noise", [{}, {"peak": 8}, {"sigma": 25}, {"sigma": 75}, {"peak": 1}])
def test_shipped_models_meet_the_condition_on_real_slices(name, noise):
    stack = tifffile.imread(data_folder("examples") / "fibsem_medulla.tif")[2:5, :96, :96]
    stack = stack.astype(np.float32) / 255
    if noise:
        stack = add_noise(stack, rng=np.random.default_rng(0), clip=True, **noise)
    before, here, after = torch.from_numpy(stack)[:, None, None]
    network = load_model(name).network
    errors = [both_forms(network, beside, here)[2] for beside in (before, after)]
    error = (errors[0] + errors[1]) / 2
    assert 0.01 < error.square().mean().sqrt() < 0.3
    assert error.abs().max() < 2
    assert abs(error.mean()) < 0.05


@pytest.mark.parametrize("name", ["fibsem-medulla", "fibsem-medulla-fast"])
def test_made_images_foretell_the_error_on_real_slices(name):
    """With the margin that is planned with; and shipped models keep int8 with that margin."""
    network = load_model(name).network
    made, _ = error_on_made_images(network)
    assert plans.MADE_TO_REAL * made < plans.MOST_RMS
    stack = tifffile.imread(data_folder("examples") / "fibsem_medulla.tif")[2:5, :128, :128]
    for noise in ({}, {"peak": 8}, {"sigma": 25}, {"sigma": 75}):
        slices = stack.astype(np.float32) / 255
        if noise:
            slices = add_noise(slices, rng=np.random.default_rng(0), clip=True, **noise)
        before, here, after = torch.from_numpy(slices)[:, None, None]
        errors = [both_forms(network, beside, here)[2] for beside in (before, after)]
        real = float(((errors[0] + errors[1]) / 2).square().mean().sqrt())
        assert real < plans.MADE_TO_REAL * made


@pytest.mark.parametrize(("rms", "worst", "suits"), [(0.27, 1.9, True), (0.28, 1.0, False)])
def test_int8_needs_a_margin_on_made_images(rms, worst, suits, monkeypatch):
    """0.28 there can be more than 0.3 on real slices."""
    monkeypatch.setattr(quantised, "error_on_made_images", lambda network: (rms, worst))
    assert plans.int8_suits(strong_network(1, 16), CPU) is suits


@pytest.mark.parametrize(
    ("units", "maps", "edge"), [(1, 1, False), (1, 8, True), (3, 8, False), (4, 20, False)]
)
def test_branches_are_close_to_the_plain_network(units, maps, edge):
    network = strong_network(units, maps, edge)
    before, here, _ = three((2, 1, 17, 21))
    change, exact, error = both_forms(network, before, here, every=True)
    expected = torch.stack(network.branch(before, here).estimates[1:]) - here
    torch.testing.assert_close(exact, expected, atol=1e-5, rtol=0)
    assert change.shape == expected.shape
    # These networks remove ten times as much as trained ones do.
    assert error.square().mean().sqrt() < 0.02 * 255 * float(expected.std())


@pytest.mark.parametrize("units", [1, 2])
def test_stopping_early_leaves_the_closing_term_out(units):
    network = strong_network(3)
    before, here, _ = three((1, 1, 16, 16))
    change, _, error = both_forms(network, before, here, units=units)
    assert change.shape == (1, 1, 1, 16, 16)
    assert error.square().mean().sqrt() < 0.02 * 255 * float(change.std())


@pytest.mark.parametrize("orientation", range(8))
def test_turned_kernels_see_the_turned_image(orientation):
    network = strong_network(2)
    before, here, _ = three((1, 1, 12, 18))
    _, exact, error = both_forms(network, before, here, orientation=orientation)
    assert error.square().mean().sqrt() < 0.02 * 255 * float(exact.std())


def test_two_centres_and_a_centre_used_twice():
    network = strong_network(2)
    before, here, after = three((1, 1, 14, 14))
    engine = QuantisedNRRN(network)
    centres = [engine.centre(before), engine.centre(after)]
    together = engine.branches(here, centres)
    for centre, change in zip(centres, together, strict=True):
        assert torch.equal(engine.branches(here, [centre])[0], change)


def test_a_network_that_changes_nothing_adds_exactly_nothing():
    engine = QuantisedNRRN(identity_network())
    before, here, _ = three((1, 1, 9, 9))
    assert not engine.branches(before, [engine.centre(here)])[0].any()


@pytest.mark.parametrize("threads", [1, 3])
def test_strips_and_threads_decide_nothing(threads, monkeypatch):
    network = strong_network(2)
    before, here, _ = three((1, 1, 23, 19))
    engine = QuantisedNRRN(network)
    expected = engine.branches(before, [engine.centre(here)])[0]
    monkeypatch.setattr(strips, "STRIP", 19 * 8 * 2)
    used = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        again = engine.branches(before, [engine.centre(here)])[0]
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(used)
    # The first convolution is in fp32, whose last bit may depend on the strip.
    assert ((again - expected).abs() > 1e-6).float().mean() < 0.02
    torch.testing.assert_close(again, expected, atol=2e-2, rtol=0)


def test_memory_that_is_used_again_decides_nothing():
    network = strong_network(2)
    engine = QuantisedNRRN(network)
    for size in (23, 23, 31, 23):
        before, here, after = three((1, 1, size, size))
        centre = engine.centre(here)
        results = [engine.branches(beside, [centre])[0] for beside in (before, after)]
        engine.release(centre)
        fresh = QuantisedNRRN(network)
        for beside, result in zip((before, after), results, strict=True):
            assert torch.equal(result, fresh.branches(beside, [fresh.centre(here)])[0])


def test_room_gives_the_same_memory_again_for_windows_of_one_size():
    room = Room(4)
    room.use_for(8, 8)
    first = room.take(8, 8)
    second = room.take(8, 8)
    assert first.data_ptr() != second.data_ptr()
    room.give_back(first)
    assert room.take(8, 8, torch.uint8).data_ptr() != first.data_ptr()
    assert room.take(8, 8).data_ptr() == first.data_ptr()
    forgotten = weakref.ref(first)
    room.give_back(first)
    del first
    room.use_for(9, 8)
    assert forgotten() is None


def test_all_strips_have_ended_when_one_fails():
    ended = []

    def work(start: int, stop: int) -> None:
        if start == 0:
            raise MemoryError
        time.sleep(0.05)
        ended.append(start)

    used = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        shared = strips.Strips(8, strips.STRIP, strips.Threads())
        with pytest.raises(MemoryError):
            shared.each(work)
    finally:
        torch.set_num_threads(used)
    assert len(shared.bounds) == 8 and sorted(ended) == list(range(1, 8))


def test_a_system_without_further_threads_leaves_none_waiting(monkeypatch):
    present, start = set(threading.enumerate()), threading.Thread.start
    used = torch.get_num_threads()

    def only_one(thread: threading.Thread) -> None:
        if set(threading.enumerate()) - present:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", only_one)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        strips.Threads().pool(2)
    gc.collect()
    for thread in set(threading.enumerate()) - present:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert torch.get_num_threads() == used


def test_threads_end_with_their_engine(monkeypatch):
    monkeypatch.setattr(strips, "STRIP", 19 * 8 * 2)
    before, here, _ = three((1, 1, 23, 19))
    used = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        present = set(threading.enumerate())
        engine = QuantisedNRRN(strong_network(1))
        engine.branches(before, [engine.centre(here)])
        own = set(threading.enumerate()) - present
        assert len(own) == 2
        del engine
        gc.collect()
        for thread in own:
            thread.join(timeout=60)
            assert not thread.is_alive()
    finally:
        torch.set_num_threads(used)


def test_kernels_are_rounded_alike_with_any_number_of_threads():
    # Workers of one run, and a run that goes on, may have more or fewer.
    before, here, _ = three((1, 1, 40, 40))
    used, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            engine = QuantisedNRRN(load_model("fibsem-medulla-fast").network)
            assert torch.get_num_threads() == threads
            torch.set_num_threads(1)
            results.append(engine.branches(before, [engine.centre(here)])[0])
    finally:
        torch.set_num_threads(used)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_changed_weights_are_noticed():
    network = strong_network(1)
    before, here, _ = three((1, 1, 9, 9))
    both_forms(network, before, here)
    with torch.no_grad():
        for value in network.parameters():
            value.mul_(0.5)
    _, exact, error = both_forms(network, before, here)
    assert error.square().mean().sqrt() < 0.02 * 255 * float(exact.std())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_damaged_weights_are_refused(value):
    network = strong_network(1)
    with torch.no_grad():
        network.BU[0].Vr.weight[0, 0, 0, 0] = value
    with pytest.raises(FloatingPointError, match="the model is damaged"):
        QuantisedNRRN(network)


def test_bytes_are_convolved_exactly():
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (1, 5, 9, 11), dtype=torch.uint8, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last)
    network = strong_network(1, 5)
    scale = kernels.Scale.of(observe(network).ranges.memory[0], torch.arange(9))
    kernel = (network.W2.weight, network.W2.bias)
    [packed] = kernels.quantise([kernel], scale)
    got = kernels.convolve(x, packed)
    weight = network.W2.weight / scale.factor[:, None, None]
    values = x.double() - scale.zero[:, None, None].double()
    expected = torch.nn.functional.conv2d(values, weight.double(), network.W2.bias.double())
    step = weight.abs().amax((1, 2, 3)) / 127
    # Each of the 45 products is off by half a step of its kernel, times at most 255, at most.
    assert ((got - expected).abs() < 45 * 255 * step[:, None, None]).all()
    assert (got - expected).std() < 0.05 * expected.std()


def test_rounding_together_beats_rounding_alone():
    generator = torch.Generator().manual_seed(4)
    mixed = torch.randn(40, 40, generator=generator) * torch.linspace(0.05, 2, 40)
    inputs = torch.randn(5000, 40, generator=generator) @ mixed
    exact = 100 * torch.rand(16, 40, generator=generator, dtype=torch.float64) - 50
    together = kernels.round_together(exact, torch.cov(inputs.T))
    assert torch.equal(together, together.round())

    def error(rounded):
        return float((inputs.double() @ (rounded - exact).T).square().mean().sqrt())

    assert error(together) < 0.6 * error(exact.round())


def test_the_compiled_gates_are_those_of_the_equations():
    rng = np.random.default_rng(5)
    shape = (3, 4, 21)
    v, w = rng.normal(0, 2, (2, 3, *shape)).astype(np.float32)
    m = np.tanh(rng.normal(0, 1, shape)).astype(np.float32)
    image, change = rng.random((2, *shape[:2])).astype(np.float32)
    before = change.copy()
    factor = np.full(shape[2], 127, np.float32)
    zero = np.full(shape[2], 128, np.float32)
    into = np.zeros((3, 6, 21), np.uint8)
    gates.gates(*v, *w, m, image, change, factor, zero, into)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x.astype(np.float64)))

    c = np.tanh(w[2] + sigmoid(v[0] + w[0]) * v[2])
    u = sigmoid(v[1] + w[1])
    h = u * m + (1 - u) * c
    expected = before + h[..., 0] * sigmoid(h.max(axis=2))
    np.testing.assert_allclose(change, expected, atol=2e-6)
    h[..., 0] = np.tanh(image + expected)
    assert np.abs(into[:, 1:-1] - (h * 127 + 128)).max() < 0.501
    assert not into[:, 0].any() and not into[:, -1].any()


def test_tiles_and_slabs_do_not_show():
    network = strong_network(1, 16)
    stack = np.random.default_rng(6).integers(0, 256, (4, 50, 60), dtype=np.uint8)
    results = []
    for tile, slab in ((60, 4), (16, 2)):
        asked = DenoiseSettings(precision="int8", device="cpu", tile=tile, slab=slab)
        plan = make_plan(stack.shape, stack.dtype, network, asked, (0, 255))
        blocks = denoise_slabs(ArraySource(stack), network, plan)
        results.append(np.concatenate([block.image for block in blocks]).astype(int))
    difference = np.abs(results[0] - results[1])
    assert (results[0] != stack).mean() > 0.5
    assert difference.max() <= 1 and (difference > 0).mean() < 0.02


def test_8_bit_images_are_denoised_in_int8_where_the_model_allows_it(monkeypatch):
    def precision(network, dtype="uint8", **asked):
        settings = DenoiseSettings(device="cpu", **asked)
        return make_plan((5, 600, 600), dtype, network, settings, (0, 255)).precision

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    model = load_model("fibsem-medulla-fast").network
    assert precision(model) == "int8"
    assert precision(model, "uint16") == precision(model, "float32") == "fp32"
    assert precision(model, precision="fp32") == "fp32"
    assert precision(strong_network(1, 8)) == "fp32"  # too small to be worth it
    coarse = strong_network(4, 16)
    with torch.no_grad():
        for value in coarse.parameters():
            value.mul_(2)
    assert plans.MADE_TO_REAL * error_on_made_images(coarse)[0] > plans.MOST_RMS
    assert precision(coarse) == "fp32"
    assert precision(coarse, precision="int8") == "int8"
