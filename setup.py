from pathlib import Path

from setuptools import find_packages, setup

DEMO = ["scikit-learn>=1.5", "matplotlib>=3.9", "pillow>=11"]

setup(
    name="refimpl-diffusion-gan",
    version="0.1.0",
    description="The smallest exact reference of diffusion models and GANs, and kernels that provably match it",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=find_packages(include=["refimpl", "refimpl.*", "kernels", "kernels.*", "benchmarks", "benchmarks.*"]),
    package_data={"kernels": ["**/*.cu", "**/*.cuh", "**/*.h", "**/*.cpp", "**/*.json"]},
    install_requires=["numpy>=2.0", "scipy>=1.13", "numba>=0.61", "threadpoolctl>=3.5", "safetensors>=0.5",
                      "rich>=13.9", "hypothesis>=6.120", "flatlatex>=0.15"],
    extras_require={
        "demo": DEMO,
        "test": ["pytest>=8.3", "pytest-xdist>=3.6", "ruff==0.17.6", *DEMO],
        "peers": ["torch==2.13.0", "diffusers>=0.38"],
        "cuda12": ["cupy-cuda12x[ctk]>=14", "numba-cuda[cu12]>=0.30", "nvidia-cuda-nvcc-cu12>=12"],
        "cuda13": ["cupy-cuda13x[ctk]>=14", "numba-cuda[cu13]>=0.30", "nvidia-cuda-crt>=13"],
        "cuda-check": ["cupy-cuda13x>=14", "numba-cuda[cu13]>=0.30", "nvidia-cuda-nvcc>=13", "nvidia-nvvm>=13",
                       "nvidia-cuda-crt>=13", "nvidia-cuda-cuobjdump>=13", "nvidia-cuda-nvdisasm>=13"],
    },
)
