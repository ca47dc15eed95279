//go:build linux

// Command cmd runs a real Kubernetes on this machine, one node for each datacenter (see package cluster). It needs root.
//
//	cmd up [-own DC,...] [DC...]   starts it; DCs are dc1 dc2 dc3 unless named, and those of -own are clusters of their own
//	cmd down                       ends it and leaves nothing behind, also after a crash
//	cmd status                     machines, their addresses and links
//	cmd env                        KUBECONFIG and PATH for a shell
//	cmd partition DC               cuts a datacenter off; heal connects it again
//	cmd heal DC
//	cmd kill-node DC               as if it lost power; start-node boots it from its disk
//	cmd start-node DC
//	cmd load-image FILE...         gives all nodes the images of archives, such as `make images` writes
//	cmd exec MACHINE COMMAND...    runs a command there: a node, or wan, where clients are (dig -b 10.1.0.9 @10.89.2.1 ...)
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/fingerpost-dns/fingerpost/hack/cluster"
)

func main() {
	cluster.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 { // of exec
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: up [-own DC,...] [DC...] | down | status | env | partition DC | heal DC | kill-node DC | start-node DC | load-image FILE... | exec MACHINE COMMAND")

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	dir, err := cluster.DefaultDir()
	if err != nil {
		return err
	}
	if args[0] == "up" {
		return up(ctx, dir, args[1:])
	}
	c, err := cluster.Open(dir)
	if errors.Is(err, cluster.ErrNone) && args[0] == "down" {
		fmt.Println("nothing runs")
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Setenv("PATH", c.Programs().Path); err != nil { // ip and ctr are those that the cluster was started with
		return err
	}
	args, operands := args[:1], args[1:]
	switch {
	case args[0] == "down" && len(operands) == 0:
		return c.Down()
	case args[0] == "status" && len(operands) == 0:
		return status(c)
	case args[0] == "env" && len(operands) == 0:
		env(c)
		return nil
	case args[0] == "partition" && len(operands) == 1:
		return c.Partition(operands[0])
	case args[0] == "heal" && len(operands) == 1:
		return c.Heal(operands[0])
	case args[0] == "kill-node" && len(operands) == 1:
		return c.Kill(operands[0])
	case args[0] == "start-node" && len(operands) == 1:
		return c.Start(ctx, operands[0])
	case args[0] == "load-image" && len(operands) >= 1:
		for _, file := range operands {
			if err := c.LoadImage(file); err != nil {
				return err
			}
		}
		return nil
	case args[0] == "exec" && len(operands) >= 2:
		cmd, err := c.Exec(ctx, operands[0], operands[1:]...)
		if err != nil {
			return err
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		return cmd.Run()
	}
	return errUsage
}

func up(ctx context.Context, dir string, args []string) error {
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	own := flags.String("own", "", "datacenters that are a cluster of their own, separated by commas")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o := cluster.Options{Dir: dir, Datacenters: flags.Args(), Host: true, Stay: true, Progress: os.Stderr}
	if len(o.Datacenters) == 0 {
		o.Datacenters = []string{"dc1", "dc2", "dc3"}
	}
	if *own != "" {
		o.Own = strings.Split(*own, ",")
	}
	packed, err := os.MkdirTemp("", "fingerpost-cluster-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(packed)
	if o.Programs, o.Images, err = cluster.Prepare(ctx, packed, os.Stderr); err != nil {
		return err
	}
	c, err := cluster.Up(ctx, o)
	if err != nil {
		return err
	}
	env(c)
	for _, dc := range o.Own {
		fmt.Printf("# %s: KUBECONFIG=%s\n", dc, c.Kubeconfig(dc))
	}
	return nil
}

// env prints what kubectl needs, for a shell.
func env(c *cluster.Cluster) {
	fmt.Printf("export KUBECONFIG=%s PATH=$PATH:%s\n", c.Kubeconfig(cluster.Central), c.Programs().Assets)
}

func status(c *cluster.Cluster) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 8, 3, ' ', 0)
	fmt.Fprintln(table, "MACHINE\tKIND\tCLUSTER\tADDRESS\tPID\tLINK")
	for _, m := range c.Status() {
		pid, link := "-", "-"
		if m.PID != 0 {
			pid, link = fmt.Sprint(m.PID), "up"
			if m.Cut {
				link = "cut"
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.Kind, m.Cluster, m.Address, pid, link)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Printf("\nLogs are in %s\n", c.Logs())
	return nil
}
