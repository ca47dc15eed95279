// Command cmd makes the images of this project as OCI archives.
//
//	go run ./hack/images/cmd [-version VERSION] [-out DIR] [-architectures amd64,arm64] [PROGRAM...]
//
// The working directory is in the checkout. Without programs it is all that run in a cluster.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fingerpost-dns/fingerpost/hack/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o := images.Options{Checkout: ".", Progress: os.Stderr}
	flag.StringVar(&o.Version, "version", "dev", "stamped into the programs, and the tag of the images")
	flag.StringVar(&o.Out, "out", filepath.Join("bin", "images"), "folder to write to")
	architectures := flag.String("architectures", "amd64,arm64", "what to build for")
	flag.Parse()
	o.Architectures = strings.Split(*architectures, ",")
	if o.Programs = flag.Args(); len(o.Programs) == 0 {
		o.Programs = images.Programs()
	}
	built, err := images.Build(ctx, o)
	if err != nil {
		return err
	}
	for _, b := range built {
		info, err := os.Stat(b.File)
		if err != nil {
			return err
		}
		fmt.Printf("%s  %s  %.1f MiB  %s\n", b.File, b.Name, float64(info.Size())/(1<<20), b.Digest)
	}
	return nil
}
