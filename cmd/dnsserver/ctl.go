package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/fingerpost-dns/fingerpost/dnsserver"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

const ctlSummary = `Talks to the server that runs on this machine, through its control socket, without any hub or Kubernetes: for the
day when the control plane is gone and traffic must move all the same.

An override made here acts at once at this server and, told from server to server, at all others. It always ends by
itself, after --for, and shows in the status of the DynamicRecords when the hub is back.`

const ctlExamples = `  # move all clients away from dc-b for two hours
  dnsserver ctl override drain --datacenter dc-b --for 2h --reason CHG-1

  # answer one name from pool b, up or not
  dnsserver ctl override force --record payments/app --pool b --ignore-health --for 30m

  # what is in force, what is answered, and the end of an override
  dnsserver ctl override list
  dnsserver ctl records
  dnsserver ctl override end drain-dc-b`

// controlClient calls the server of this machine.
type controlClient struct{ stateDir string }

func (c controlClient) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dnsserver.DialControl(ctx, c.stateDir)
	}}}
	r, err := http.NewRequestWithContext(ctx, method, "http://server"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	reply, err := client.Do(r)
	if failed, is := errors.AsType[*url.Error](err); is {
		err = failed.Err // without the address that stands for the socket
	}
	if err != nil {
		return nil, fmt.Errorf("no server answers at %s; is --state-dir that of the server? %w", dnsserver.ControlPath(c.stateDir), err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		return nil, err
	}
	if reply.StatusCode >= 300 {
		return nil, errors.New(strings.TrimSpace(string(text)))
	}
	return text, nil
}

func ctlCommand() *cobra.Command {
	var (
		client   controlClient
		stateDir string
	)
	c := &cobra.Command{
		Use: "ctl", Short: "Control the server of this machine, without any hub", Long: ctlSummary, Example: ctlExamples,
		PersistentPreRun: func(*cobra.Command, []string) { client.stateDir = stateDir },
	}
	c.PersistentFlags().StringVar(&stateDir, "state-dir", "/var/lib/fingerpost", "`folder` of the server's state, as given to it")
	c.AddCommand(recordsCommand(&client), overrideCommand(&client))
	return c
}

func recordsCommand(client *controlClient) *cobra.Command {
	return &cobra.Command{
		Use: "records", Short: "What steered names answer, as this server sees it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := client.call(cmd.Context(), http.MethodGet, "/records", nil)
			if err != nil {
				return err
			}
			var records []dnsserver.ControlRecord
			if err := json.Unmarshal(text, &records); err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "RECORD\tNAME\tHEALTHY\tPOOLS\tSTATE\tOVERRIDE")
			for _, r := range records {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Source, r.Name, r.Healthy, strings.Join(r.Pools, ","), r.State, r.Override)
			}
			return w.Flush()
		},
	}
}

func overrideCommand(client *controlClient) *cobra.Command {
	var (
		o       = &steeringpb.Override{}
		name    string
		lasting time.Duration
	)
	c := &cobra.Command{Use: "override", Short: "Drain, force, freeze or release steered names"}
	put := func(cmd *cobra.Command, fallback string) error {
		if lasting <= 0 {
			return errors.New("--for must be more than 0: an override always ends by itself")
		}
		if name == "" {
			name = fallback
		}
		o.Source, o.AllRecords = "local/"+name, len(o.GetRecords()) == 0
		o.Expires = uint64(time.Now().Add(lasting).UnixMilli())
		body, err := protojson.Marshal(o)
		if err != nil {
			return err
		}
		if _, err := client.call(cmd.Context(), http.MethodPost, "/overrides", body); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "override %s is in force until %s\n", name, time.UnixMilli(int64(o.GetExpires())).UTC().Format(time.RFC3339))
		return err
	}
	common := func(sub *cobra.Command) *cobra.Command {
		sub.Args = cobra.NoArgs
		f := sub.Flags()
		f.StringSliceVar(&o.Records, "record", nil, "`NAMESPACE/NAME` of a DynamicRecord to act on; repeatable (default: all)")
		f.DurationVar(&lasting, "for", time.Hour, "how long, at most 24h")
		f.StringVar(&o.Reason, "reason", "", "why, for those who look later")
		f.StringVar(&name, "name", "", "`name` of the override (default: made of what it does)")
		return sub
	}
	var datacenter, pool, target string
	place := func(sub *cobra.Command) *cobra.Command {
		f := sub.Flags()
		f.StringVar(&datacenter, "datacenter", "", "`name` of a datacenter")
		f.StringVar(&pool, "pool", "", "`name` of a pool")
		f.StringVar(&target, "target", "", "`address` or name of a target")
		return common(sub)
	}
	where := func() string {
		return strings.Join(strings.FieldsFunc(datacenter+" "+pool+" "+target, func(r rune) bool { return r == ' ' }), "-")
	}

	var keep uint32
	drain := place(&cobra.Command{Use: "drain", Short: "Move clients away", RunE: func(cmd *cobra.Command, _ []string) error {
		o.KeepAtLeast = keep
		o.Action = &steeringpb.Override_Drain{Drain: &steeringpb.Drain{Datacenter: datacenter, Pool: pool, Target: target}}
		return put(cmd, "drain-"+where())
	}})
	drain.Flags().Uint32Var(&keep, "keep-at-least", 1, "healthy targets that each name must keep")
	var ignoreHealth bool
	force := place(&cobra.Command{Use: "force", Short: "Move all clients to one place", RunE: func(cmd *cobra.Command, _ []string) error {
		o.Action = &steeringpb.Override_Force{Force: &steeringpb.Force{Datacenter: datacenter, Pool: pool, Target: target, IgnoreHealth: ignoreHealth}}
		return put(cmd, "force-"+where())
	}})
	force.Flags().BoolVar(&ignoreHealth, "ignore-health", false, "answer targets that are down too")
	freeze := common(&cobra.Command{Use: "freeze", Short: "Keep answers as they are", RunE: func(cmd *cobra.Command, _ []string) error {
		o.Action = &steeringpb.Override_Freeze{Freeze: &steeringpb.Freeze{}}
		return put(cmd, "freeze")
	}})
	failback := common(&cobra.Command{Use: "failback", Short: "Let records return that wait for a person", RunE: func(cmd *cobra.Command, _ []string) error {
		o.Action = &steeringpb.Override_Failback{Failback: &steeringpb.Failback{}}
		return put(cmd, "failback")
	}})
	c.AddCommand(drain, force, freeze, failback, listOverridesCommand(client), endOverrideCommand(client))
	return c
}

// overridesOf asks for the overrides that were made at servers.
func overridesOf(ctx context.Context, client *controlClient) ([]*steeringpb.Override, error) {
	text, err := client.call(ctx, http.MethodGet, "/overrides", nil)
	if err != nil {
		return nil, err
	}
	var all steeringpb.Overrides
	if err := protojson.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	return all.GetOverrides(), nil
}

func listOverridesCommand(client *controlClient) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Overrides that were made at servers", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := overridesOf(cmd.Context(), client)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "NAME\tACTION\tEXPIRES\tREASON")
			for _, o := range all {
				expires := time.UnixMilli(int64(o.GetExpires())).UTC()
				ended := ""
				if !expires.After(time.Now()) {
					ended = " (ended)"
				}
				fmt.Fprintf(w, "%s\t%s\t%s%s\t%s\n", strings.TrimPrefix(o.GetSource(), "local/"), actionName(o), expires.Format(time.RFC3339), ended, o.GetReason())
			}
			return w.Flush()
		},
	}
}

func actionName(o *steeringpb.Override) string {
	switch o.GetAction().(type) {
	case *steeringpb.Override_Drain:
		return "Drain"
	case *steeringpb.Override_Force:
		return "Force"
	case *steeringpb.Override_Freeze:
		return "Freeze"
	case *steeringpb.Override_Failback:
		return "Failback"
	case *steeringpb.Override_RaiseTtl:
		return "RaiseTTL"
	case *steeringpb.Override_Block:
		return "Block"
	}
	return "none"
}

func endOverrideCommand(client *controlClient) *cobra.Command {
	return &cobra.Command{
		Use: "end NAME", Short: "End an override that was made at a server", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := overridesOf(cmd.Context(), client)
			if err != nil {
				return err
			}
			for _, o := range all {
				if o.GetSource() != "local/"+args[0] {
					continue
				}
				o.Expires = uint64(time.Now().UnixMilli())
				body, err := protojson.Marshal(o)
				if err != nil {
					return err
				}
				if _, err = client.call(cmd.Context(), http.MethodPost, "/overrides", body); err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "override %s is ended\n", args[0])
				return err
			}
			return fmt.Errorf("there is no override %q; those made in Kubernetes are ended there", args[0])
		},
	}
}
