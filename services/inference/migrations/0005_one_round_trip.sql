-- A record is looked up, and those of a tenant that ended at one time are written, in one statement that is its own transaction.

create function find_generation(p_tenant text, p_id text) returns setof generation language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  return query select * from generation where tenant_id = p_tenant and id = p_id;
end $$;

create function finish_generations(p_tenant text, p_records generation[]) returns void language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  insert into generation select * from unnest(p_records) on conflict do nothing;
end $$;
