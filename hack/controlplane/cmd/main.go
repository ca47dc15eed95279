// Command cmd obtains Kubernetes for tests and runs it by hand.
//
//	go run ./hack/controlplane/cmd assets [PROGRAM...]
//	go run ./hack/controlplane/cmd charttools
//	go run ./hack/controlplane/cmd run DIR
//
// assets prints the folder that holds the programs (default: etcd, kube-apiserver, kubectl), and fills it first if need be.
// charttools does the same for Helm and what checks the chart.
// run keeps a control plane in DIR until it is interrupted; DIR/admin.kubeconfig is the way in.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) >= 1 && args[0] == "assets":
		dir, err := controlplane.Assets(ctx, os.Stderr, args[1:]...)
		if err != nil {
			return err
		}
		fmt.Println(dir)
		return nil
	case len(args) == 1 && args[0] == "charttools":
		dir, err := controlplane.ChartTools(ctx, os.Stderr)
		if err != nil {
			return err
		}
		fmt.Println(dir)
		return nil
	case len(args) == 2 && args[0] == "run":
		assets, err := controlplane.Assets(ctx, os.Stderr)
		if err != nil {
			return err
		}
		cp, err := controlplane.Start(ctx, controlplane.Options{Assets: assets, Dir: args[1]})
		if err != nil {
			return err
		}
		fmt.Printf("export KUBECONFIG=%s\n", cp.Kubeconfig())
		<-ctx.Done()
		return cp.Stop()
	}
	return errors.New("usage: assets [PROGRAM...] | charttools | run DIR")
}
