"""Programs beside a run: conversion, planning, viewing, benchmarks."""
