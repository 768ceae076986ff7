// What a dashboard here must be: Grafana's own types, as it publishes them, and a little more: each panel says in a
// title and a description what it tells, and in which unit.

import type { Dashboard, FieldConfig, Panel, RowPanel } from '@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen';
import type * as Stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as Table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as TimeSeries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** The same with each enum as its values: JSON has no enums. */
type Plain<T> = T extends string
  ? `${T}`
  : T extends number
    ? T
    : T extends ReadonlyArray<infer Item>
      ? Array<Plain<Item>>
      : T extends object
        ? { [Key in keyof T]: Plain<T[Key]> }
        : T;

type Prometheus = { type: 'prometheus'; uid: 'cota-prometheus' };
type Postgres = { type: 'grafana-postgresql-datasource'; uid: 'cota-postgres' };

type Target =
  | {
      refId: string;
      datasource: Prometheus;
      expr: string;
      legendFormat: string;
      editorMode: 'code';
      range: boolean;
      instant: boolean;
      format?: 'time_series' | 'table';
    }
  | {
      refId: string;
      datasource: Postgres;
      rawSql: string;
      rawQuery: true;
      editorMode: 'code';
      format: 'time_series' | 'table';
    };

/** A threshold's first step has no lower bound, which is null in JSON. */
type Step = { value: number | null; color: string };

type PanelOf<Type extends string, Options, Custom> = Omit<
  Panel,
  'type' | 'id' | 'title' | 'description' | 'datasource' | 'gridPos' | 'options' | 'fieldConfig' | 'targets'
> &
  Required<Pick<Panel, 'id' | 'title' | 'description' | 'gridPos'>> & {
    type: Type;
    datasource: Prometheus | Postgres;
    options: Options;
    targets: Target[];
    fieldConfig: {
      defaults: Omit<FieldConfig, 'custom' | 'unit' | 'thresholds'> & {
        unit: string;
        custom?: Custom;
        thresholds?: { mode: 'absolute'; steps: Step[] };
      };
      overrides: NonNullable<Panel['fieldConfig']>['overrides'];
    };
  };

type Row = RowPanel & { title: string };

type AnyPanel =
  | PanelOf<'timeseries', TimeSeries.Options, Partial<TimeSeries.FieldConfig>>
  | PanelOf<'stat', Omit<Stat.Options, 'percentChangeColorMode'>, never>
  | PanelOf<'table', Omit<Table.Options, 'frameIndex'>, Partial<Table.FieldConfig>>
  | Row;

export type CotaDashboard = Plain<
  Omit<Dashboard, 'panels'> & Required<Pick<Dashboard, 'uid' | 'title' | 'description' | 'tags' | 'time'>> & {
      panels: AnyPanel[];
    }
>;
