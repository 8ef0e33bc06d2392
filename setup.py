"""The compiled kernel; everything else is in pyproject.toml.

The extension is optional: without a C compiler the package installs all the same and counts with numpy.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "quantkit._kernel",
            sources=["quantkit/_kernel.c"],
            extra_compile_args=["-O3"],
            optional=True,
        )
    ]
)
