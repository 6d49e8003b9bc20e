// The page's colours: those of the system, or the ones that the visitor has chosen. This script is no module, so that it
// runs before the first paint.

{
	const root = document.documentElement;
	const choices = ['system', 'light', 'dark'];
	try {
		root.dataset.theme = localStorage.theme ?? 'system';
	} catch {
		root.dataset.theme = 'system'; // this browser keeps nothing
	}
	addEventListener('DOMContentLoaded', () => {
		const button = /** @type {HTMLButtonElement} */ (document.getElementById('theme'));
		const show = () => { button.textContent = `Colours: ${root.dataset.theme}`; };
		button.addEventListener('click', () => {
			root.dataset.theme = choices[(choices.indexOf(root.dataset.theme ?? '') + 1) % choices.length];
			try { localStorage.theme = root.dataset.theme; } catch { /* as above */ }
			show();
			dispatchEvent(new Event('colours'));
		});
		matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => dispatchEvent(new Event('colours')));
		show();
	});
}
