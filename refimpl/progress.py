"""What a training run says while it goes: a bar on a terminal, plain lines elsewhere. Always on stderr."""
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINES = 20  # of a whole run, where there is no terminal
SMOOTH = 0.95


class Progress:
    """Context manager; update(step, {player: {"loss": ..., ...}}) after every step. Figures are shown smoothed."""

    def __init__(self, steps, start, players, console=None):
        self.steps, self.start, self.players = steps, start, players
        self.sums = {}  # label -> (sum of weighted values, sum of weights): their quotient is the smoothed value
        self.console = console or Console(stderr=True, highlight=False)
        self.bar = None

    def __enter__(self):
        if self.console.is_terminal:
            self.bar = Bar(TextColumn("training"), BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn(),
                           TextColumn("{task.fields[figures]}"), console=self.console)
            self.bar.start()
            self.task = self.bar.add_task("training", total=self.steps, completed=self.start, figures="")
        return self

    def __exit__(self, *_):
        if self.bar:
            self.bar.stop()

    def update(self, step, seen):
        """Take in one step's figures."""
        for player, figures in seen.items():
            for name, value in figures.items():
                label = name if len(self.players) == 1 else f"{player} {name}"
                total, weight = self.sums.get(label, (0.0, 0.0))
                self.sums[label] = SMOOTH * total + value, SMOOTH * weight + 1
        text = "  ".join(f"{label} {total / weight:.4f}" for label, (total, weight) in self.sums.items())
        if self.bar:
            self.bar.update(self.task, completed=step, figures=text)
        elif step == self.steps or step % max(1, self.steps // LINES) == 0:
            self.console.print(f"step {step} of {self.steps}  {text}", soft_wrap=True)
