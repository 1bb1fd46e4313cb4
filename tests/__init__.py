"""Tests: unit/ mirrors the package; integration/ and faults/ start real processes; cluster/ holds the manifests."""
