"""`python -m mora_launch`, which the `mora` script calls inside the control environment."""

from mora_launch.container.first_process import become_child_of_first_process

become_child_of_first_process()  # before the command's imports, whose memory PID 1 does not need

from mora_launch.cli import main  # noqa: E402

main()
