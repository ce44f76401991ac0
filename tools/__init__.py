"""Programs beside a run: conversion and benchmarks."""
