//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

// story tells what happens in an estate. Its methods end the story when something is not as it should be, as those of
// testing.T end a test.
type story struct {
	*estate.Estate
	terminal
	settings settings
	facts    int // how many things were checked
}

// unexpected ends a story; tell makes an error of it.
type unexpected struct{ err error }

// tell starts everything in the estate and tells the story, or only its beginning if the estate is to stay.
func tell(e *estate.Estate, as settings, t terminal) (err error) {
	began := time.Now()
	s := &story{Estate: e, terminal: t, settings: as}
	defer func() {
		switch end := recover().(type) {
		case nil:
		case unexpected:
			if err = context.Cause(e.Context); err == nil { // else what was unexpected is its consequence
				err = end.err
			}
		default:
			panic(end)
		}
	}()
	tellThese := steps
	if as.Stay {
		tellThese = slices.DeleteFunc(slices.Clone(steps), func(st step) bool { return !st.stays })
	}
	for i, step := range tellThese {
		s.heading(fmt.Sprintf("%d. %s", i+1, step.title))
		step.tell(s)
	}
	s.line("", "")
	if as.Stay {
		s.usage()
		return nil
	}
	s.line(bold+green, fmt.Sprintf("All %d statements that were checked on the way are true. It took %s.", s.facts, s.ago(began)))
	return nil
}

// fail ends the story.
func (s *story) fail(format string, args ...any) {
	panic(unexpected{fmt.Errorf(format, args...)})
}

// check ends the story unless what it says is true.
func (s *story) check(is bool, format string, args ...any) {
	s.facts++
	if !is {
		s.fail("it should be so, and is not: "+format, args...)
	}
}

// must ends the story if there is an error.
func (s *story) must(err error) {
	if err != nil {
		panic(unexpected{err})
	}
}

// quiet runs a command line that is not worth showing.
func (s *story) quiet(line string) string {
	out, err := s.Shell(line)
	s.must(err)
	return out
}

// run shows a command line, runs it, and shows of what it prints that which the trims leave. It returns all of it.
func (s *story) run(line string, trims ...trim) string {
	s.command(line)
	out := s.quiet(line)
	lines := linesOf(s.shorten(out))
	for _, t := range trims {
		lines = t(lines)
	}
	s.output(lines)
	return out
}

// shorten writes the folder of the run as commands do.
func (s *story) shorten(text string) string { return strings.ReplaceAll(text, s.Dir, "$RUN") }

// until waits for something that takes no more than limit.
func (s *story) until(limit time.Duration, what string, is func() bool) time.Time {
	s.facts++
	s.must(s.Until(limit, what, is))
	return time.Now()
}

// everywhere waits until all the addresses give an answer, no longer than limit, and returns when each did.
func (s *story) everywhere(limit time.Duration, x expectation, addresses []netip.Addr) []time.Time {
	ctx, cancel := context.WithTimeout(s.Context, limit)
	defer cancel()
	times, err := x.awaitEverywhere(ctx, addresses)
	s.must(err)
	s.facts += len(addresses)
	return times
}

// ago says how long ago a moment was.
func (*story) ago(t time.Time) string { return inWords(time.Since(t)) }

// inWords rounds a duration to what is worth reading.
func inWords(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func addressesOf(servers []*estate.Server) []netip.Addr {
	all := make([]netip.Addr, len(servers))
	for i, srv := range servers {
		all[i] = srv.Addr
	}
	return all
}

// latest returns the last of some times.
func latest(times []time.Time) time.Time {
	return slices.MaxFunc(times, time.Time.Compare)
}

// usage says how a person uses what was left running.
func (s *story) usage() {
	var env strings.Builder
	for name, value := range s.Environment() {
		if name != "HOME" { // that of whoever enters is better
			fmt.Fprintf(&env, "export %s='%s'\n", name, value)
		}
	}
	s.must(os.WriteFile(s.Path("env"), []byte(env.String()), 0o644))
	enter := "bash --rcfile " + s.Path("env")
	if s.settings.Private {
		nsenter := fmt.Sprintf("nsenter --target %d --net ", os.Getpid())
		if s.settings.Unprivileged {
			nsenter += "--user --preserve-credentials "
		}
		enter = nsenter + enter
	}
	at := func(datacenter, group string) (addr netip.Addr) {
		for _, srv := range slices.Backward(s.Servers) {
			if srv.Datacenter == datacenter && srv.Group == group {
				addr = srv.Addr
			}
		}
		return addr
	}
	s.line(bold, "It runs, and goes on until: make demo-down")
	where := "A shell"
	if s.settings.Private {
		where = "All addresses, that of the API server too, are in a network of its own. A shell there"
	}
	s.say("%s, with kubectl, dig and KUBECONFIG set:", where)
	s.command(enter)
	s.say("and in it")
	s.command("kubectl get datacenters; kubectl get dnszones -A -o wide")
	s.command(fmt.Sprintf("dig @%s mail.pay.corp    # authoritative in dc-a; in dc-b it is %s", at("dc-a", "authoritative"), at("dc-b", "authoritative")))
	s.command(fmt.Sprintf("dig @%s . NS             # a root server in dc-a; in dc-b it is %s", at("dc-a", "root"), at("dc-b", "root")))
	s.command("kubectl edit dnszone pay -n payments")
	s.command(fmt.Sprintf("dig -b %s @%s shop.pay.corp    # as a client of dc-a; of dc-b: -b %s", clientA, at("dc-a", "authoritative"), clientB))
	s.command("kubectl get dynamicrecords -n payments -o wide -w")
	s.command(fmt.Sprintf("dig -b %s @%s %s     # through a resolver; of dc-b: -b %s @%s", clientA, resolverAddresses["dc-a"][0], app, clientB, resolverAddresses["dc-b"][0]))
	s.command(fmt.Sprintf("kill -STOP %d   # %s falls silent; kill -CONT wakes it", s.Others[0].PID(), s.Others[0].Name))
	s.say("Each program's log, which begins with its command line, is in %s", s.Path("logs"))
}
