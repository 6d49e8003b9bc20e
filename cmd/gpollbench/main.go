// Gpollbench measures gpoll on this machine.
//
//	gpollbench                                        # broadcasts inside one process: the cost of the package itself
//	gpollbench tune -clients 5000 -rate 20            # which sizes to set for a need, as Go code
//	gpollbench load http://127.0.0.1:8080/poll        # many real clients against any gpoll server
//
// Every delivery is verified. With -json it prints for machines. With -o report.html it writes one file with plots for
// people. The exit code is 1 if the measurement failed or messages were lost, and 2 if a flag is wrong.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // it measured, and something was wrong
	exitUsage  = 2
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == serveCommand {
		os.Exit(serveMain(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second ^C ends the program at once
	os.Exit(run(ctx, os.Args, os.Stdout, os.Stderr))
}

// A usageError is a mistake in the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run is the whole program and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	usage := func(_ context.Context, cmd *cli.Command, err error, _ bool) error { return refusedFlag(cmd, err) }
	out := &output{stdout: stdout, stderr: stderr, args: args}
	app := &cli.Command{
		Name:      "gpollbench",
		Usage:     "measure gpoll on this machine",
		ArgsUsage: "[message size [clients [messages]]]",
		Writer:    stdout,
		ErrWriter: stderr,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print JSON", Destination: &out.json},
			&cli.StringFlag{Name: "o", Aliases: []string{"output"},
				Usage: "write a report with plots to `FILE`, one HTML page that needs no other file", Destination: &out.file},
		},
		Commands:       []*cli.Command{tuneCommand(out), loadCommand(out)},
		OnUsageError:   usage,
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
	}
	fanOutCommand(app, out)
	for _, c := range app.Commands {
		c.OnUsageError = usage
	}
	err := app.Run(ctx, args)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "gpollbench: %s\n", strings.TrimPrefix(err.Error(), "gpoll: benchmark: "))
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintln(stderr, "See gpollbench -help.")
		return exitUsage
	}
	return exitFailed
}

// output is where results go.
type output struct {
	stdout, stderr io.Writer
	args           []string
	json           bool
	file           string
	secret         string // part of args that no report shows
}

// ready makes sure, before anything is measured, that the report can be written.
func (o *output) ready() error {
	if o.file == "" {
		return nil
	}
	f, err := os.OpenFile(o.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		return errors.Join(f.Close(), os.Remove(o.file))
	}
	if errors.Is(err, fs.ErrExist) {
		if f, err = os.OpenFile(o.file, os.O_WRONLY, 0); err == nil {
			return f.Close()
		}
	}
	return fmt.Errorf("the report cannot be written: %w", err)
}

// A finding is the result of a command: Text for people, itself as JSON, Page for the report.
type finding interface {
	Text(w io.Writer)
	Page(p *page)
}

// write writes the report that was asked for and then prints a finding. The reader of standard output may have gone by
// then.
func (o *output) write(f finding) error {
	if o.file != "" {
		p := newPage(o.command(), thisMachine())
		f.Page(p)
		if err := p.write(o.file); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	if o.json {
		e := json.NewEncoder(&b)
		e.SetIndent("", "\t")
		if err := e.Encode(f); err != nil {
			return err
		}
	} else {
		f.Text(&b)
	}
	_, err := o.stdout.Write(b.Bytes())
	return err
}

// command is the command line without what is secret in it.
func (o *output) command() string {
	command := "gpollbench " + strings.Join(o.args[1:], " ")
	if o.secret != "" {
		command = strings.ReplaceAll(command, o.secret, "…")
	}
	return command
}
