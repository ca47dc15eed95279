package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/fingerpost-dns/fingerpost/dnsserver"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

const checkSummary = `Reads zones as the server does, and says what is wrong with them, a line for each finding on stdout:

  FILE:LINE:COLUMN: what keeps the zone from being served
  FILE:LINE:COLUMN: warning: what is served, or left out without loss, but hardly meant

A finding about the zone as a whole has no line and column. A zone that can be served ends with

  zone NAME: loaded serial N, R records

The exit status is 0 if all zones can be served, else 1.`

// checkCommand has so many CPUs to use.
func checkCommand(cpus int) *cobra.Command {
	var threads int
	c := &cobra.Command{
		Use:   "check NAME=FILE...",
		Short: "Check zone files",
		Long:  checkSummary,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("no zones to check: give NAME=FILE")
			}
			var files []dnsserver.ZoneFile
			for _, arg := range args {
				file, err := dnsserver.ParseZoneFile(arg)
				if err != nil {
					return err
				}
				files = append(files, file)
			}
			bad := 0
			for _, file := range files {
				good, err := check(cmd.OutOrStdout(), file, threads)
				if err != nil {
					return fmt.Errorf("reporting on zone %s: %w", file.Apex, err)
				}
				if !good {
					bad++
				}
			}
			if bad > 0 {
				return fmt.Errorf("%d of %d zones cannot be served", bad, len(files))
			}
			return nil
		},
	}
	c.Flags().IntVar(&threads, "threads", cpus, "`number` of threads that read a zone")
	return c
}

// check writes what there is to say about a zone, and returns whether it can be served. The
// error is that of writing.
func check(w io.Writer, file dnsserver.ZoneFile, threads int) (good bool, err error) {
	text, err := os.ReadFile(file.Path)
	if err != nil {
		_, err = fmt.Fprintf(w, "%s: %v\n", file.Path, err)
		return false, err
	}
	content, version, faults := zone.LoadParallel(file.Apex, string(text), threads)
	good = content != nil
	if content != nil {
		faults = append(faults, zone.CheckTargets(content, string(text))...)
	}
	for _, f := range faults {
		mark := "warning: "
		if !f.Warning {
			mark, good = "", false
		}
		if _, err := fmt.Fprintf(w, "%s: %s%v\n", f.Place(file.Path), mark, f.Err); err != nil {
			return false, err
		}
	}
	if good {
		_, err = fmt.Fprintf(w, "zone %s: loaded serial %d, %d records\n", file.Apex, version.Serial, content.Records())
	}
	return good, err
}
