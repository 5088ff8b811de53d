package config

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
)

//go:embed config.go
var source string

// Entry is one setting in the manual.
type Entry struct {
	Path string // "storage \"raft\" / retry_join / leader_api_addr"
	Doc  string // what it is, its unit and its default
}

// Manual lists every setting with its field's comment, in the order of the structs.
func Manual() ([]Entry, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", source, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("reading the manual: %w", err)
	}
	structs := map[string]*ast.StructType{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.TypeSpec); ok {
			if s, ok := spec.Type.(*ast.StructType); ok {
				structs[spec.Name.Name] = s
			}
		}
		return true
	})
	var entries []Entry
	var walk func(name, path string)
	walk = func(name, path string) {
		for _, field := range structs[name].Fields.List {
			if field.Tag == nil {
				continue
			}
			tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("hcl")
			setting, kind, _ := strings.Cut(tag, ",")
			here := setting
			switch {
			case kind == "label":
				continue
			case kind == "variant":
				here = fmt.Sprintf("%s %q", path, setting)
			case path != "":
				here = path + " / " + setting
			}
			doc := strings.Join(strings.Fields(field.Doc.Text()), " ")
			if rest, ok := strings.CutPrefix(doc, field.Names[0].Name+" "); ok && !strings.HasPrefix(rest, "are ") {
				doc = setting + " " + rest // the user's name for it, not Go's
			}
			entries = append(entries, Entry{Path: here, Doc: doc})
			if kind == "block" || kind == "variant" {
				walk(elementName(field.Type), here)
			}
		}
	}
	walk("Config", "")
	return entries, nil
}

func elementName(t ast.Expr) string {
	if list, ok := t.(*ast.ArrayType); ok {
		t = list.Elt
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}
