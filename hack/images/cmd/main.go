// Command cmd makes the images of this project as OCI archives.
//
//	go run ./hack/images/cmd [-version VERSION] [-out DIR] [-architectures amd64,arm64] [-sources FILE] [IMAGE...]
//
// The working directory is in the checkout. Without names it is all images.
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
	sources := flag.String("sources", "", "`FILE` as in sources.list(5) with Debian 12, such as that of a mirror or a snapshot (default: deb.debian.org)")
	flag.Parse()
	o.Architectures = strings.Split(*architectures, ",")
	if o.Images = flag.Args(); len(o.Images) == 0 {
		o.Images = images.Names()
	}
	if *sources != "" {
		text, err := os.ReadFile(*sources)
		if err != nil {
			return err
		}
		o.Sources = string(text)
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
