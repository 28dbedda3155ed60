"""`python -m benchmarks`: what SRT costs beyond its forward passes."""

from benchmarks.overhead import main

main()
