"""What the diagnostic protocol asks of a model, asked of a torch module by hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Observed:
    """A torch module with hidden states and their gradients, for ``diagnose`` and ``TrainingMonitor``.

    h_0 is what the first block is given, h_l what block l gives. Nothing of the module or of what it is given changes: it is run
    in evaluation mode and set back, no ``.grad`` is touched, the hooks are there only while it runs, and what works in place
    works on copies.

    Args:
        module: called with a batch's x.
        blocks: submodules of it in the order in which they run, each once a pass; of what a block is given and gives the first
            tensor is its state, (n, ...) of floats.
        loss: ``loss(output, y)``, the mean loss as a tensor of one element; cross-entropy by default.

    Raises:
        ValueError: no block, or one that is no part of the module.
        ImportError: there is no torch.

    Example::

        monitor.observe(epoch, Observed(net, net.blocks), x, y, accuracy)
    """

    def __init__(self, module: Any, blocks: Sequence[Any], loss: Callable[[Any, Any], Any] | None = None) -> None:
        from torch.nn.functional import cross_entropy

        self.module, self.blocks, self.loss = module, list(blocks), loss or cross_entropy
        if not self.blocks:
            raise ValueError("blocks must have at least one submodule, not none")
        parts = {id(part) for part in module.modules()}
        for at, block in enumerate(self.blocks):
            if id(block) not in parts:
                raise ValueError(f"blocks[{at}] must be a submodule of the module, not {type(block).__name__}")

    def hidden_states(self, x: Any) -> list[Array]:
        """h_0..h_L as arrays, each (n, ...)."""
        with self._observing(gradients=False):
            return [_array(state) for state in self._run(x)[1]]

    def hidden_gradients(self, x: Any, y: Any) -> list[Array]:
        """The gradients of the mean loss by h_0..h_L; zeros where the loss does not depend on a state."""
        import torch

        with self._observing(gradients=True):
            output, states = self._run(x)
            found = torch.autograd.grad(self._loss(output, y), states, allow_unused=True)
        return [np.zeros(tuple(h.shape)) if g is None else _array(g) for h, g in zip(states, found, strict=True)]

    def gradient(self, x: Any, y: Any) -> Array:
        """The gradient of the mean loss by all trainable weights of the blocks, (P,)."""
        import torch

        weights = list(dict.fromkeys(w for block in self.blocks for w in block.parameters() if w.requires_grad))
        if not weights:
            raise ValueError("blocks must have weights with requires_grad, not none")
        with self._observing(gradients=True):
            found = torch.autograd.grad(self._loss(self._run(x)[0], y), weights, allow_unused=True)
        parts = [np.zeros(w.numel()) if g is None else _array(g).ravel() for w, g in zip(weights, found, strict=True)]
        return np.concatenate(parts)

    def _run(self, x: Any) -> tuple[Any, list[Any]]:
        """The module's output and the states, by each of which the loss can be differentiated."""
        states: list[Any] = []
        seen: list[int] = []

        def taken(given: Any, where: str) -> Any:
            """The state in what a block is given or gives is kept, and a copy goes on in its place."""
            tensor = _first(given, where)
            copied = self._kept(tensor, states, where)
            return _replaced(given, tensor, copied)

        def before(block: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            return taken((given, named), "blocks[0] must be given")

        def after(at: int) -> Callable[[Any, Any, Any], Any]:
            def hook(block: Any, given: Any, made: Any) -> Any:
                seen.append(at)
                return taken(made, f"blocks[{at}] must give")

            return hook

        hooks = [self.blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
        hooks += [block.register_forward_hook(after(at)) for at, block in enumerate(self.blocks)]
        try:
            output = self.module(_tensor(x, self.module))
        finally:
            for hook in hooks:
                hook.remove()
        if seen != list(range(len(self.blocks))):
            raise ValueError(f"blocks must each run once a pass, in their order, not as {seen}")
        return output, states

    @staticmethod
    def _kept(tensor: Any, states: list[Any], where: str) -> Any:
        """A copy of a state that goes on: what works on it in place leaves the state as it was."""
        import torch

        if not tensor.is_floating_point():
            raise ValueError(f"{where} floats, not {tensor.dtype}: let the blocks begin behind the embedding")
        if torch.is_grad_enabled() and not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()  # one that depends on no weight
        states.append(tensor)
        return tensor.clone()

    def _loss(self, output: Any, y: Any) -> Any:
        loss = self.loss(output, _tensor(y, self.module, floating=False))
        if loss.numel() != 1:
            raise ValueError(f"loss must give the mean over the samples, one element, not {tuple(loss.shape)}")
        return loss

    @contextmanager
    def _observing(self, *, gradients: bool) -> Iterator[None]:
        """Dropout off and batch statistics still, in every submodule, and back; whatever the caller's mode of gradients."""
        import torch

        modes = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        try:
            with torch.inference_mode(False), torch.set_grad_enabled(gradients):
                yield
        finally:
            for part, mode in modes:
                part.training = mode


def _first(value: Any, where: str) -> Any:
    """The first tensor in tuples, lists and mappings.

    Raises:
        ValueError: there is none.
    """
    found = next(_tensors(value), None)
    if found is None:
        raise ValueError(f"{where} a tensor, not {type(value).__name__}")
    return found


def _tensors(value: Any) -> Iterator[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))


def _replaced(value: Any, old: Any, new: Any) -> Any:
    """The same with one tensor in the place of another."""
    if value is old:
        return new
    if isinstance(value, tuple):
        parts = [_replaced(one, old, new) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, list):
        return [_replaced(one, old, new) for one in value]
    if isinstance(value, dict):
        return type(value)({key: _replaced(one, old, new) for key, one in value.items()})
    return value


def _tensor(value: Any, module: Any, *, floating: bool = True) -> Any:
    """A copy as a tensor where the module is: floats in its precision if it is to work on them, integers as int64.

    What is neither an array nor a tensor, such as a mapping of them, is handed on as it is.
    """
    import torch

    if not isinstance(value, (torch.Tensor, np.ndarray, list, tuple, int, float)):
        return value
    own = next(iter(module.parameters()), None)
    tensor = torch.as_tensor(value).detach().clone()
    if not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool):
        tensor = tensor.long()
    if own is None:
        return tensor
    dtype = own.dtype if floating and tensor.is_floating_point() else tensor.dtype
    return tensor.to(device=own.device, dtype=dtype)


def _array(tensor: Any) -> Array:
    """A copy as a numpy array; bfloat16, which numpy has not, as float32."""
    made: Array = tensor.detach().cpu().float().numpy() if tensor.dtype.itemsize < 4 else tensor.detach().cpu().numpy()
    return made.copy()
