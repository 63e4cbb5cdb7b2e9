"""Pictures of samples and losses, as bytes of PNG or GIF files. Pillow and matplotlib are loaded when one is drawn."""
import io

import numpy as np

GREY = 235


def require_packages():
    """Raise ImportError with what to install when pictures cannot be drawn."""
    try:
        import matplotlib
        import PIL
    except ImportError as error:
        raise ImportError(f"drawing pictures needs Pillow and matplotlib ({error}): pip install -e .[demo]") from error
    return PIL, matplotlib


def pixels(x):
    """Images (N, C, H, W) in [-1, 1] as bytes (N, H, W, 3); what lies outside is clipped, as on any screen."""
    x = np.rint((np.clip(x, -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.moveaxis(np.broadcast_to(x, (len(x), 3, *x.shape[2:])) if x.shape[1] == 1 else x[:, :3], 1, -1)


def canvas(x, captions=None, columns=10):
    """A Pillow image: images in rows of `columns`, enlarged by whole pixels, each over its caption if there are any."""
    from PIL import Image, ImageDraw

    x = pixels(x)
    zoom = max(1, 56 // max(x.shape[1:3]))
    height, width = (zoom * side for side in x.shape[1:3])
    gap, text = 6, 14 if captions is not None else 0
    rows = -(-len(x) // columns)
    sheet = Image.new("RGB", (gap + columns * (width + gap), gap + rows * (height + text + gap)), (GREY,) * 3)
    draw = ImageDraw.Draw(sheet)
    for k, image in enumerate(x):
        left, top = gap + k % columns * (width + gap), gap + k // columns * (height + text + gap)
        sheet.paste(Image.fromarray(np.kron(image, np.ones((zoom, zoom, 1), np.uint8))), (left, top))
        if captions is not None:
            draw.text((left + width / 2, top + height + 1), str(captions[k]), (40, 40, 40), anchor="ma", font_size=11)
    return sheet


def grid(x, captions=None, columns=10):
    """PNG of images in a grid; points (N, 2) are drawn as a scatter plot instead, coloured by their captions."""
    if x.ndim == 2:
        return scatter(x, captions)
    return _png(canvas(x, captions, columns))


def scatter(x, labels=None):
    """PNG of points (N, 2) in the plane."""
    figure, axes = _axes(5, 5)
    colours = {} if labels is None else {"c": labels, "cmap": "tab10" if np.max(labels) < 10 else "turbo"}
    axes.scatter(*x.T, s=4, **colours)
    axes.set_aspect("equal")
    return _figure(figure)


def panels(stages, labels=None, columns=5):
    """PNG of a list of (title, points (N, 2)) side by side, in the square of half side 3."""
    from matplotlib.figure import Figure

    rows = -(-len(stages) // columns)
    figure = Figure(figsize=(2.2 * columns, 2.4 * rows), layout="constrained")
    for k, (title, x) in enumerate(stages):
        axes = figure.add_subplot(rows, columns, k + 1, aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
        axes.scatter(*x.T, s=1, **({} if labels is None else {"c": labels, "cmap": "tab10"}))
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    return _figure(figure)


def bars(values, xlabel, ylabel):
    """PNG of one bar per value, the largest first, and a line where all would be equal."""
    figure, axes = _axes(7, 3)
    axes.bar(np.arange(len(values)), np.sort(values)[::-1], width=1.0)
    axes.axhline(np.mean(values), color="C1", linewidth=1)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return _figure(figure)


def film(frames, captions=None, columns=10, seconds=4.0):
    """GIF of a list of image batches, the last one held for a while."""
    sheets = [canvas(x, captions, columns).convert("L") for x in frames]
    each = int(1000 * seconds / len(sheets))
    file = io.BytesIO()
    sheets[0].save(file, "GIF", save_all=True, append_images=sheets[1:], loop=0,
                   duration=[each] * (len(sheets) - 1) + [2000])
    return file.getvalue()


def losses(history):
    """PNG of {player: losses}: every step faintly, and a running mean."""
    figure, axes = _axes(7, 4)
    for k, (name, values) in enumerate((n, v) for n, v in history.items() if len(v)):
        width = max(1, len(values) // 40)
        axes.plot(values, color=f"C{k}", alpha=0.25, linewidth=0.7)
        mean = np.convolve(values, np.ones(width) / width, "valid")
        axes.plot(np.arange(len(mean)) + width - 1, mean, color=f"C{k}", label=f"{name}, mean of {width} steps")
        axes.legend()
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    if all(np.min(values, initial=1) > 0 for values in history.values()):
        axes.set_yscale("log")
    return _figure(figure)


def _axes(width, height):
    from matplotlib.figure import Figure  # not pyplot: no window, no state that outlives the call

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _figure(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
