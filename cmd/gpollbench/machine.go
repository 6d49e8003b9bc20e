package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// machine is what figures depend on.
type machine struct {
	CPU   string `json:"cpu"`
	Cores int    `json:"cores"`
	Procs int    `json:"gomaxprocs"`
	OS    string `json:"os"`
	Go    string `json:"go"`
}

func thisMachine() machine {
	m := machine{CPU: runtime.GOARCH, Cores: runtime.NumCPU(), Procs: runtime.GOMAXPROCS(0), OS: runtime.GOOS,
		Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(b), "\n") {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				m.CPU = strings.TrimSpace(v)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.OS += " " + strings.TrimSpace(string(b))
	}
	return m
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d processors, GOMAXPROCS %d, %s, %s", m.CPU, m.Cores, m.Procs, m.OS, m.Go)
}
