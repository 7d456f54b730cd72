"""`python -m mora_launch`, which the `mora` script calls inside the control environment."""

from mora_launch.cli import main

main()
