//go:build !linux

package main

import (
	"context"

	"github.com/corvuscrypto/gpoll/internal/load"
)

const serveCommand = "serve-for-tune"

func serveMain([]string) int { return exitFailed }

func (n *need) try(context.Context, sizes) (trial, error) { return trial{}, load.ErrPlatform }
