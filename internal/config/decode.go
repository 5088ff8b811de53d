package config

import (
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/locum-ha/locum/physical"
)

// decoder fills a Config from the bodies of files, and remembers where everything was written.
type decoder struct {
	where  positions
	faults Faults
	source map[string][]byte // files by name, for the names in hcl's diagnostics
}

func (d *decoder) fault(where, what, fix string) {
	d.faults = append(d.faults, Fault{Where: where, What: what, Fix: fix})
}

// member is one field of a struct with its hcl tag.
type member struct {
	name, kind string // kind: "", "block", "label", "variant"
	value      reflect.Value
}

func members(v reflect.Value) []member {
	var all []member
	for i := range v.NumField() {
		tag, ok := v.Type().Field(i).Tag.Lookup("hcl")
		if !ok {
			continue
		}
		name, kind, _ := strings.Cut(tag, ",")
		all = append(all, member{name: name, kind: kind, value: v.Field(i)})
	}
	return all
}

func labelOf(t reflect.Type) bool {
	for i := range t.NumField() {
		if strings.HasSuffix(t.Field(i).Tag.Get("hcl"), ",label") {
			return true
		}
	}
	return false
}

// schemaOf is what hcl may find in a body that fills a struct of these members.
func schemaOf(all []member) *hcl.BodySchema {
	schema := &hcl.BodySchema{}
	for _, m := range all {
		switch m.kind {
		case "":
			schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: m.name})
		case "block":
			t := m.value.Type()
			if t.Kind() == reflect.Slice {
				t = t.Elem()
			}
			block := hcl.BlockHeaderSchema{Type: m.name}
			if labelOf(t) {
				block.LabelNames = []string{"type"}
			}
			schema.Blocks = append(schema.Blocks, block)
		}
	}
	return schema
}

// body fills the struct v from a body. What the body does not mention stays as it was.
func (d *decoder) body(body hcl.Body, v reflect.Value, path string) {
	all := members(v)
	content, diags := body.Content(schemaOf(all))
	d.diagnostics(diags)
	for _, m := range all {
		if m.kind == "" {
			if attr := content.Attributes[m.name]; attr != nil {
				d.attribute(attr, m.value, join(path, m.name))
			}
		}
	}
	seen := map[string]hcl.Range{}
	for _, block := range content.Blocks {
		i := slices.IndexFunc(all, func(m member) bool { return m.kind == "block" && m.name == block.Type })
		m, path := all[i], join(path, block.Type)
		if m.value.Kind() == reflect.Slice {
			one := reflect.New(m.value.Type().Elem()).Elem()
			path = fmt.Sprintf("%s[%d]", path, m.value.Len())
			d.block(block, one, path)
			m.value.Set(reflect.Append(m.value, one))
			continue
		}
		if first, twice := seen[block.Type]; twice {
			d.fault(at(block.DefRange), fmt.Sprintf("%s: a second block in one file, the first is on line %d", block.Type, first.Start.Line), "keep one")
			continue
		}
		seen[block.Type] = block.DefRange
		d.block(block, m.value, path)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// block fills v from a block. A block with a label starts anew: that of a later file replaces an earlier one's.
func (d *decoder) block(block *hcl.Block, v reflect.Value, path string) {
	d.where[path] = at(block.DefRange)
	all := members(v)
	variants := map[string]reflect.Value{}
	labelled := false
	for _, m := range all {
		switch m.kind {
		case "label":
			labelled = true
		case "variant":
			variants[m.name] = m.value
		}
	}
	if !labelled {
		d.body(block.Body, v, path)
		return
	}
	for old := range d.where { // of the block that this one replaces
		if strings.HasPrefix(old, path+".") {
			delete(d.where, old)
		}
	}
	d.where[path+".type"] = at(block.DefRange)
	label := block.Labels[0]
	fresh := reflect.New(v.Type()).Elem()
	defaultsOf(fresh)
	v.Set(fresh)
	for _, m := range members(v) {
		if m.kind == "label" {
			m.value.SetString(label)
		}
	}
	if len(variants) == 0 {
		d.body(block.Body, v, path)
		return
	}
	if into, ok := variants[label]; ok {
		d.body(block.Body, into, path)
	}
	// An unknown label is Validate's to report: it knows which ones are yet to come.
}

// attribute sets one field.
func (d *decoder) attribute(attr *hcl.Attribute, into reflect.Value, path string) {
	d.where[path] = at(attr.Range)
	value, diags := attr.Expr.Value(nil)
	if diags.HasErrors() {
		d.diagnostics(diags)
		return
	}
	if err := set(into, value); err != nil {
		what, fix, _ := strings.Cut(err.Error(), ": ")
		d.fault(at(attr.Range), path+": "+what, fix)
	}
}

// set converts a value to the field's type. Errors read "what: fix".
func set(into reflect.Value, value cty.Value) error {
	if value.IsNull() || !value.IsWhollyKnown() {
		return fmt.Errorf("no value: write one, or remove the line")
	}
	text := func(example string) (string, error) {
		if value.Type() != cty.String {
			return "", fmt.Errorf("%s where a string is expected: write %s in quotes", value.Type().FriendlyName(), example)
		}
		return value.AsString(), nil
	}
	switch p := into.Addr().Interface().(type) {
	case *string:
		s, err := text("it")
		*p = s
		return err
	case *physical.Secret:
		s, err := text("it")
		*p = physical.Secret(s)
		return err
	case *bool:
		if value.Type() != cty.Bool {
			return fmt.Errorf("%s where a bool is expected: write true or false", value.Type().FriendlyName())
		}
		*p = value.True()
	case *int:
		if value.Type() != cty.Number || !value.AsBigFloat().IsInt() {
			return fmt.Errorf("%s where a whole number is expected: write digits without quotes", value.Type().FriendlyName())
		}
		n, exact := value.AsBigFloat().Int64()
		if exact != big.Exact || n != int64(int(n)) {
			return fmt.Errorf("number out of range: write a smaller one")
		}
		*p = int(n)
	case *time.Duration:
		s, err := text(`a duration with its unit, such as "15s",`)
		if err == nil {
			*p, err = parseDuration(s)
		}
		return err
	case *Size:
		s, err := text(`a size with its unit, such as "64MiB",`)
		if err == nil {
			*p, err = ParseSize(s)
		}
		return err
	case *Performance:
		asText, err := convert.Convert(value, cty.String)
		if err != nil {
			return fmt.Errorf(`%s where a string or number is expected: write "lan", "wan", or a number`, value.Type().FriendlyName())
		}
		*p, err = ParsePerformance(asText.AsString())
		return err
	default:
		return setMany(into, value)
	}
	return nil
}

// setMany is set for fields with more than one value.
func setMany(into reflect.Value, value cty.Value) error {
	switch p := into.Addr().Interface().(type) {
	case *map[string]string:
		all, err := convert.Convert(value, cty.Map(cty.String))
		if err != nil {
			return fmt.Errorf("%s where a map of strings is expected: write { NAME = \"value\" }", value.Type().FriendlyName())
		}
		*p = map[string]string{}
		for name, one := range all.AsValueMap() {
			if one.IsNull() {
				return fmt.Errorf("null in a map of strings: remove it")
			}
			(*p)[name] = one.AsString()
		}
	case *OneOrMore:
		if value.Type() == cty.String {
			*p = OneOrMore{value.AsString()}
			return nil
		}
		return set(reflect.ValueOf((*[]string)(p)).Elem(), value)
	case *[]string:
		list, err := convert.Convert(value, cty.List(cty.String))
		if err != nil {
			return fmt.Errorf("%s where a list of strings is expected: write [\"…\", \"…\"]", value.Type().FriendlyName())
		}
		*p = []string{}
		for _, one := range list.AsValueSlice() {
			if one.IsNull() {
				return fmt.Errorf("null in a list of strings: remove it")
			}
			*p = append(*p, one.AsString())
		}
	default:
		return fmt.Errorf("field type %s has no decoder", into.Type())
	}
	return nil
}

// diagnostics turns hcl's findings into faults.
func (d *decoder) diagnostics(diags hcl.Diagnostics) {
	for _, diag := range diags {
		if diag.Severity != hcl.DiagError {
			continue
		}
		f := Fault{What: diag.Summary, Fix: strings.TrimSuffix(diag.Detail, ".")}
		if diag.Subject != nil {
			f.Where = at(*diag.Subject)
			name := ""
			if diag.Subject.CanSliceBytes(d.source[diag.Subject.Filename]) {
				name = strings.Trim(string(diag.Subject.SliceBytes(d.source[diag.Subject.Filename])), `"`)
			}
			unknown := strings.HasPrefix(diag.Summary, "Unsupported") || strings.HasPrefix(diag.Summary, "Extraneous")
			if fix, ok := foreignKeys[name]; ok && unknown {
				f.What, f.Fix = name+": not a setting of Locum", fix
			}
		}
		d.faults = append(d.faults, f)
	}
}

// foreignKeys are settings that users of similar servers write, with what to do instead.
var foreignKeys = map[string]string{
	"node_id":                               "remove it: the identity is made with the data directory, and node_name names the node",
	"disable_mlock":                         "remove it",
	"ui":                                    "remove it",
	"disable_clustering":                    `remove it: for one node alone use storage "file" or "inmem"`,
	"performance_multiplier":                "write performance = \"lan\", \"wan\", or a number that scales all raft times",
	"trailing_logs":                         "remove it: how much log is kept follows from snapshot_size",
	"snapshot_threshold":                    "write snapshot_size, such as \"64MiB\"",
	"snapshot_interval":                     "write snapshot_size, such as \"64MiB\"",
	"retry_join_as_non_voter":               "remove it: every node votes in this version",
	"auto_join":                             "write leader_api_addr with the address of a node",
	"auto_join_scheme":                      "write leader_api_addr with the address of a node",
	"redirect_addr":                         "write api_addr at the top of the file",
	"advertise_addr":                        "write api_addr at the top of the file",
	"cluster_advertise_addr":                "write api_addr at the top of the file",
	"tls_require_and_verify_client_cert":    "remove it: with tls_client_ca_file clients must show a certificate",
	"tls_disable_client_certs":              "remove it: without tls_client_ca_file no certificate is asked for",
	"tls_max_version":                       "remove it: the newest version that both sides speak is used",
	"tls_cipher_suites":                     "remove it: the suites are Go's own choice, which leaves out what is weak",
	"tls_prefer_server_cipher_suites":       "remove it: the suites are Go's own choice",
	"proxy_protocol_behavior":               "write proxy_protocol = true, with proxy_protocol_authorized_addrs: those must send it, others cannot",
	"x_forwarded_for_hop_skips":             "remove it: the client is the last address that is not in x_forwarded_for_authorized_addrs",
	"x_forwarded_for_reject_not_present":    "remove it: X-Forwarded-For from elsewhere is dropped, and who sends none is the client itself",
	"x_forwarded_for_reject_not_authorized": "remove it: X-Forwarded-For from elsewhere is dropped, and who sends none is the client itself",
	"http_write_timeout":                    "remove it: an answer may take its time, and one that the client does not take for a minute is ended",
	"cors_enabled":                          "remove it: no CORS headers are sent",
}
