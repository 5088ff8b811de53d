package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) kvPutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "put PATH KEY=VALUE…",
		Short: "Write a new version of an entry",
		Long: `Writes a new version of an entry. Values that are secret do not belong in arguments: KEY=@FILE takes the value from a
file, KEY=- from stdin; @FILE or - alone take a whole JSON object. A value that begins with "@" is written "\@…".`,
		Example: `  locum kv put app/db user=orders password=@password.txt
  echo '{"user":"orders","port":5432}' | locum kv put app/db -
  locum kv put -cas 3 app/db user=orders`,
		Args: cobra.MinimumNArgs(2),
	}
	cas := casFlag(cmd)
	format := formatFlag(cmd)
	return a.asksEntry(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		want, err := cas()
		if err != nil {
			return err
		}
		data, err := a.readData(args[1:])
		if err != nil {
			return err
		}
		v, meta, err := c.KV().Put(cmd.Context(), entryPath(args[0]), data, want)
		if err != nil {
			return err
		}
		return a.showVersion(*format, v, meta)
	})
}

// readData reads KEY=VALUE arguments, or whole objects.
func (a *app) readData(args []string) (map[string]any, error) {
	data := map[string]any{}
	for _, arg := range args {
		key, value, isPair := strings.Cut(arg, "=")
		switch {
		case arg == "-" || strings.HasPrefix(arg, "@") && !isPair:
			text, err := a.readSource(arg)
			if err != nil {
				return nil, err
			}
			decoder := json.NewDecoder(strings.NewReader(text))
			decoder.UseNumber()
			if err := decoder.Decode(&data); err != nil {
				return nil, fmt.Errorf("%s is not a JSON object: %w", arg, err)
			}
		case !isPair || key == "":
			return nil, withHint(fmt.Errorf("%q is not KEY=VALUE", arg), "write KEY=VALUE, KEY=@FILE, KEY=-, @FILE or -")
		case value == "-" || strings.HasPrefix(value, "@"):
			text, err := a.readSource(value)
			if err != nil {
				return nil, err
			}
			data[key] = text
		default:
			if rest, ok := strings.CutPrefix(value, `\`); ok && strings.HasPrefix(rest, "@") {
				value = rest
			}
			data[key] = value
		}
	}
	return data, nil
}

// readSource reads "-" or "@FILE", byte for byte.
func (a *app) readSource(arg string) (string, error) {
	if arg == "-" {
		text, err := io.ReadAll(a.in)
		if err != nil {
			return "", fmt.Errorf("reading stdin: %w", err)
		}
		return string(text), nil
	}
	text, err := os.ReadFile(arg[1:])
	if err != nil {
		return "", fmt.Errorf("reading a value: %w", err)
	}
	return string(text), nil
}
