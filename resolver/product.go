package resolver

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/fingerpost-dns/fingerpost/resolver/control"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// connect returns the control side of a running engine.
func connect(p engine.Product, folder string, pid int) control.Engine {
	switch p {
	case engine.Unbound:
		return control.NewUnbound(filepath.Join(folder, engine.UnboundSocket))
	case engine.KnotResolver:
		return control.NewKnotResolver(filepath.Join(folder, engine.KnotResolverControl, strconv.Itoa(pid)))
	default:
		return control.NewRecursor(filepath.Join(folder, engine.RecursorSocket))
	}
}

// reload has a running engine read files again that changed by engine.Reload at most.
func reload(ctx context.Context, e control.Engine, changed []string) error {
	switch e := e.(type) {
	case control.Unbound:
		return e.Reload(ctx)
	case control.Recursor:
		// Each is read once, zones last: they hold the generation.
		var queries, lua bool
		for _, name := range changed {
			queries = queries || name == "queries.lua"
			lua = lua || name == "recursor.lua" || name == "block.rpz"
		}
		if queries {
			if err := e.ReloadQueries(ctx); err != nil {
				return err
			}
		}
		if lua {
			if err := e.ReloadLua(ctx); err != nil {
				return err
			}
		}
		return e.ReloadZones(ctx)
	default:
		return fmt.Errorf("%T can't be reloaded", e)
	}
}
