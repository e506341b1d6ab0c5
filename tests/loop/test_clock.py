from broker import clock


def test_a_jump_of_the_wall_clock_changes_nothing():
    """Durations run on the monotonic clock; only schedules see the jump."""
    wall, ticks = [1000.0], [50.0]
    watch = clock.Clock(wall=lambda: wall[0], monotonic=lambda: ticks[0])
    ticks[0] += 5.0
    wall[0] -= 3600.0
    assert watch.now() == 1005.0
    assert watch.wall() == -2600.0
