"""``python -m tests.sim.measure``: how long one plan takes at a thousand agents and items."""

import time

from broker.core.decide import plan
from broker.core.model import Phase, Retention
from tests.core.worlds import Scene, item, template

KINDS = {
    "items of 20 labels, 600 agents busy": lambda n: f"l{n % 20}",
    "items of 1000 different expressions": lambda n: f"l{n % 20}&&!y{n}",
    "items that nobody serves": lambda n: f"x{n}",
}


def scene(label_of):
    """A thousand agents of twenty templates, a thousand waiting items."""
    made = Scene(*(
        template(f"t{n}", f"l{n}", "linux", min_idle=2, retention=Retention(once=n % 2 == 0))
        for n in range(20)
    ))  # fmt: skip
    for n in range(1000):
        made.agent(f"t{n % 20}", Phase.BUSY if n % 10 < 6 else Phase.IDLE, idle_s=n)
        made.wait(item(n, label_of(n)))
    return made


def main():
    """Print the best of several runs, in processor time."""
    for name, label_of in KINDS.items():
        made = scene(label_of)
        world, took = made.world(), []
        for _ in range(5):
            began = time.process_time()
            plan.plan(world, made.policy)
            took.append(time.process_time() - began)
        print(f"{name}: {min(took) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
