"""Images before networks see them: conversion, preprocessing, sampling, augmentation."""
