package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/corvuscrypto/gpoll/internal/load/serve"
)

// errAbsent says that a system is not here.
var errAbsent = errors.New("not here")

// start runs a system's server on its processor and waits until it listens.
func (b *bench) start(s system) (*serve.Process, error) {
	args := []string{"--size", strconv.Itoa(b.size), "--run", strconv.Itoa(run)}
	args = append(args, s.args...)
	if s.own {
		args = append(args, b.gpollArgs...)
	}
	core := b.serverCPU
	if s.outside {
		if _, err := exec.LookPath("nginx"); err != nil {
			return nil, errAbsent
		}
		args = append(args, "-cpu", strconv.Itoa(b.serverCPU))
		core = b.clientCPU
	}
	name := filepath.Join(b.bin, s.binary)
	if s.script != "" {
		node, err := exec.LookPath("node")
		if err != nil {
			return nil, errAbsent
		}
		if _, err := os.Stat(filepath.Join(b.module, "node", "node_modules")); err != nil {
			return nil, errAbsent
		}
		name, args = node, append([]string{"--expose-gc", filepath.Join(b.module, "node", s.script)}, args...)
	}
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	p, err := serve.Start(cmd, core, b.procs)
	switch {
	case err != nil && strings.Contains(err.Error(), "has no Broadcaster.Listener"):
		return nil, errAbsent
	case err != nil:
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return p, nil
}
